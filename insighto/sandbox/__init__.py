"""The sandbox providers: local servers that speak the three providers' protocols, so the product runs offline.

A process of its own, without Django and without a database. It refuses to exist in production.
"""
