"""What `make demo` runs: real photographs, and the main job on them from profile to proof."""
