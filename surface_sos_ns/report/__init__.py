"""`surface-sos report`: one page about a trained run, with all its pictures inside it."""
