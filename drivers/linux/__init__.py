"""What hosts that run Linux share: links, bridges, tuning, scripts."""
