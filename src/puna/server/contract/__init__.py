"""The contract of a request, for every dialect: shapes whose fields carry marks, faults with their path, one Report.

A dialect writes down its bodies as Shapes and words its own faults; all else is here, so that no dialect checks, names
or reports in a way of its own.
"""
