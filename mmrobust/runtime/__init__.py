"""What a process runs on and with: devices, threads, workers, progress, interrupts, the Hub, Ray."""
