"""The ecosystem's own tests of capability and safety, with and without a control.

    valign.evals.harness    a model for EleutherAI's lm-evaluation-harness
    valign.evals.inspect    a model provider for Inspect
    valign.evals.tasks      well-known tests from local files, asked directly
    valign.evals.judges     who reads answers to risky requests
    valign.evals.compare    a test before and after, with paired intervals

The first two need `pip install 'valign[evals]'`.
"""
