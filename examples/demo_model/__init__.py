"""How the demo model is trained: its world, the stages, what each must reach, evaluation."""
