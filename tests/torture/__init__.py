"""The daemon under what no machine spares it: kills, full disks, no descriptors, a clock that is set."""
