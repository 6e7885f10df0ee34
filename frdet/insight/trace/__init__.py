"""Follows every annotated object of a data set through a detector, to the stage that lost it."""
