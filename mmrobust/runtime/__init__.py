"""What a process runs on and with: devices, memory, threads, workers, progress, Ctrl-C, the Hub, Ray."""
