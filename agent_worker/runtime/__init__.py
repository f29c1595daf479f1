"""The worker process: taking, running and ending turns."""
