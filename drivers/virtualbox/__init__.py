"""Oracle VirtualBox on a Linux host, through VBoxManage."""
