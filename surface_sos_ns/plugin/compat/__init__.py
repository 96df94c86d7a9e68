"""Every change that this package makes to nerfstudio's own code while it runs, one subject a file.

Each says what it changes and why, and is made once. Each has a test that fails when nerfstudio no longer needs it.
"""
