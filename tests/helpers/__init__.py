"""Scenes, captures and programs that several tests need."""
