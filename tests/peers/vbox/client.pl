#!/usr/bin/perl
# The VBoxManage program: asks the service at the socket that is put in when it is installed.
use strict;
use Socket;
my $service;
socket($service, PF_UNIX, SOCK_STREAM, 0) && connect($service, pack_sockaddr_un('@SOCKET@'))
    or die "VBoxManage: error: Failed to create the VirtualBox object!\n";
syswrite $service, join("", map("$_\0", @ARGV));
shutdown $service, 1;
local $/;
my ($code, $size, $told) = <$service> =~ /^(\d+) (\d+)\n(.*)$/s
    or die "VBoxManage: error: The object functionality is limited\n";
syswrite STDOUT, substr $told, 0, $size;
syswrite STDERR, substr $told, $size;
exit $code;
