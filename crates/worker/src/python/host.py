"""Starts the host: `python host.py OWN BUNDLE CACHE MOST`.

OWN is the folder that this file is in, BUNDLE that of the workflow's files or nothing, CACHE where
compiled modules are kept, MOST how many tasks run at a time.
"""

import sys


def main():
    own, bundle, cache, most = sys.argv[1:5]
    sys.argv = [""]
    sys.pycache_prefix = cache

    import gc

    from kapell_host.frames import Frames
    from kapell_host.loading import Code
    from kapell_host.serve import serve_one_by_one

    # Nothing of the user's is shadowed by our own folder: it comes last.
    sys.path[:] = ([bundle] if bundle else []) + [""] + sys.path[1:] + [own]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    frames, code = Frames(), Code(bundle or None)
    gc.collect()
    gc.freeze()
    if int(most) > 1:
        from kapell_host.together import serve_many

        serve_many(frames, code, int(most))
    else:
        serve_one_by_one(frames, code)


main()
