"""Small things to put into stores: those of the shipped checks."""

from raybolt.store.check.samples import fill_group, make_call_span, make_span, run_one

__all__ = ["fill_group", "make_call_span", "make_span", "run_one"]
