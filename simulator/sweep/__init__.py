"""Many settings of a policy on one trace: the closed loop in compiled form."""
