"""Which sample is in which case: scenarios, missing tables and the grid."""
