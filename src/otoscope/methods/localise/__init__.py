"""Methods that look for the place of a fault, behind one interface: one file each, and a user's own in ten lines.

See :mod:`otoscope.methods.localise.registry` for how a method is added, and :mod:`otoscope.methods.localise.case` for what
it is given.
"""
