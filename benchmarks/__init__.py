"""Speed and memory, measured and recorded: `make bench`. Never a timed test; ratios come from one run."""
