"""valign: dial the human values a language model expresses, and measure what it costs."""

__version__ = "0.1.0"
