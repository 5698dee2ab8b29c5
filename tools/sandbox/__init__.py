"""Makes the sandbox's tiny CLIP and SAM, measures them, and draws the pages that show its world."""
