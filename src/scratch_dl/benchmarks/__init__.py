"""Time and memory of the hand-written modules and networks compared with PyTorch's; one file per part.

suite.py       settings, the parts, and what they found together
outcome.py     what one part found: figures, their goals, a table
goals.py       every goal
"""
