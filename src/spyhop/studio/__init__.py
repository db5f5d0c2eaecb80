"""The studio: a local web page over stores, read only; runs are started from the shell.

`app` puts the pages together, `safety` decides which requests are answered, `site` is what a page
may use. Each `pages_*.py` offers `routes`, and `nav` if the page has a place in the navigation.
Nothing is imported here: `vote_page` needs no server.
"""
