"""Everything that speaks to AWS: training and tuning jobs on SageMaker, their data and prices."""
