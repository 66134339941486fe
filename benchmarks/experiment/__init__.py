"""Methods × scenarios × seeds on the demo world: the paper's comparisons, small."""
