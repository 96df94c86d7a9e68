"""Every change that this package makes to nerfstudio's own code while it runs, one subject a file.

Each says what it changes and why, is made once, and only in processes that open a run of ours. Each has a test that
fails when nerfstudio no longer needs it.
"""
