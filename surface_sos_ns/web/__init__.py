"""The web pages that this package serves: nerfstudio's viewer of our runs, and the page of `surface-sos masks click`.

Both are pages of viser, whose server trusts whoever reaches it. Here is what it is given instead:

* `access`: who may ask, and which file a request means;
* `messages`: what a browser may send;
* `listening`: the address, and who reaches it;
* `guard`: puts the first two into viser. It has to be there before a server starts.

Below the plugin and the masks, which both use it.
"""
