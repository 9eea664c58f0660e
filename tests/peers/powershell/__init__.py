"""A tree-walking interpreter of the part of PowerShell that static scripts of ours may use.

What it knows is what Windows PowerShell 5.1 and PowerShell 7 both have, and where they differ it
does as 5.1 does, which is what a Windows host has. All else raises ``Unsupported``. The tree is
tree-sitter's, a grammar that is not ours. Known: assignment (also to members, elements and typed
variables), if, foreach, for, while, do, switch without flags, try/catch/finally, throw, return,
break, continue, exit, functions and script blocks with plain parameters, pipelines, splatting,
here-strings, expandable strings, casts, hashtables and custom objects, the operators of
``operators.py``, the cmdlets of ``builtins.py`` and the .NET types of ``statics.py``. Not known:
classes, jobs, workflows, dot-sourcing, providers' drives, formatting of output.
"""
