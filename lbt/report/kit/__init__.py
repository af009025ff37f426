"""What all reports are made with: cells, wording, escapes, the renderer, the figures' style."""
