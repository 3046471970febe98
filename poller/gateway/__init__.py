"""OpenD through the official SDK."""
