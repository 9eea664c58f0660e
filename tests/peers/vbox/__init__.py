"""VirtualBox's VBoxManage, as a program that holds to its manual, with VBoxSVC behind it.

``VBoxManage`` itself is a client of a few lines: what is asked goes to the service, which goes on
with it whatever becomes of the client, as the real one does. The grammar is that of the user
manual and of VBoxManage's sources (src/VBox/Frontends/VBoxManage, doc/manual/en_US); errors have
VirtualBox's own codes and words. A command, an option or a state that is not modelled fails the
test. Settings, disks and saved states are files, so that what is left behind is seen.
"""
