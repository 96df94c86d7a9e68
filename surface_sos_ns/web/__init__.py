"""Security of the web pages that this package serves: nerfstudio's viewer, and the page of `surface-sos masks click`.

Both are viser servers. viser does not check requests or messages; this package adds the checks:

* `access`: which hosts and origins are allowed, and which files are served;
* `messages`: which messages of a browser are accepted;
* `listening`: addresses to listen at;
* `guard`: patches viser with the checks of `access` and `messages`, before a server starts.

The plugin and the masks both import it.
"""
