"""What concerns a service as a whole: its settings, who may call it, what it may touch, and what it keeps how long."""
