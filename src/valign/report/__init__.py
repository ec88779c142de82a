"""Results to pages and tables."""

from valign.report.page import render
from valign.report.table import markdown_table

__all__ = ["markdown_table", "render"]
