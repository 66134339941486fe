"""The paper's comparison on a model at hand: methods × scenarios × seeds, tables and plots."""
