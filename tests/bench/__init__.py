"""The benchmarks: ratios against what the same machine does in the same run. See docs/benchmarks.md."""
