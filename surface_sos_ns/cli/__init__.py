"""The console command `surface-sos`: one file a command, with its options and calls of what does the work.

`surface-sos --help` imports all of them: nothing heavy (torch, nerfstudio, OpenCV) is imported before a command runs.
"""

from surface_sos_ns.cli.command_line import main

__all__ = ["main"]
