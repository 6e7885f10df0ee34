"""Settings of the documentation. Build it with `make docs`: a warning is an error."""

from importlib.metadata import version as version_of

project = 'frdet'
author = 'The frdet authors'
copyright = author
version = release = version_of('frdet')

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_build', 'examples']

myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 3

# A package's page lists its modules; what it re-exports is described where it is defined, once.
autodoc_default_options = {
    'members': True,
    'ignore-module-all': True,
    'show-inheritance': True,
    'member-order': 'bysource',
}
# Docstrings that MMEngine's classes hand down are not written for this documentation.
autodoc_inherit_docstrings = False
autodoc_typehints = 'signature'
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'frdet {release}'
