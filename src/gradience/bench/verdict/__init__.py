"""SAFE, NOT SAFE or UNDERPOWERED, from the paired scores of seeds x items. Pure: docs/verdict.md.

TrialResult... -check-> Scored -pair-> Paired -estimate-> Estimate -ladders, decide-> Verdict...
"""
