"""Short adapters from other people's sampling loops to `Recorder.custom`, one technique a file."""
