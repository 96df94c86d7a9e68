"""The demo: a rendered capture with truth, a training run on it, and a page of pictures and figures."""
