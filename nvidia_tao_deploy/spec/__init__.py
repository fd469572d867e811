"""Typed specs: ``sections`` (models), ``load`` (files and overrides to a spec), ``flags`` and ``default_specs``."""
