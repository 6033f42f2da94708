"""Pure reductions: arrays in, arrays with uncertainties out."""
