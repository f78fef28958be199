"""The hand-written modules and networks beside PyTorch's, in turn in one process; one file a part.

suite.py       settings, the parts, and what they found together
outcome.py     what one part found: figures, their goals, a table
goals.py       every goal
"""
