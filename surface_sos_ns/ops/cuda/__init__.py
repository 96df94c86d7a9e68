"""What runs on a CUDA device in kernels of its own."""
