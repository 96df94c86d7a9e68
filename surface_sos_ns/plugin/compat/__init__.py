"""Every change that this package makes to nerfstudio, or to torch and Python for nerfstudio's sake, while it runs.

One file a change; its docstring says what the host does wrong. Each has a canary in tests/plugin/compat/: a test of the
host without the change, which fails once the host no longer needs it.
"""
