"""What is to be run: trials, what determines them, what they cost, and what is done already."""
