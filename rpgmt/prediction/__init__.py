"""From a trained model to results: what its outputs mean, people with their key points and maps in pixels of the image."""
