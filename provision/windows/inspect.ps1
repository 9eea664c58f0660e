# What a Windows guest sees of itself, as provision/inspect_guest.py tells it of a Linux one.
# The answer is a line "provision:" and JSON in base64. For Windows PowerShell 5.1 and PowerShell 7.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$utf8 = New-Object System.Text.UTF8Encoding($false)
$given = ConvertFrom-Json -InputObject ([Console]::In.ReadToEnd())

function Get-Offloads($name) {
    $lso = Get-NetAdapterLso -Name $name -ErrorAction SilentlyContinue
    if ($lso.IPv4Enabled) { 'lso-ipv4' }
    $rsc = Get-NetAdapterRsc -Name $name -ErrorAction SilentlyContinue
    if ($rsc.IPv4Enabled) { 'rsc-ipv4' }
    $sums = Get-NetAdapterChecksumOffload -Name $name -ErrorAction SilentlyContinue
    if ($null -eq $sums) { return }
    'checksum-ip-' + $sums.IpIPv4Enabled
    'checksum-tcp-' + $sums.TcpIPv4Enabled
    'checksum-udp-' + $sums.UdpIPv4Enabled
}

function Get-Nic($card) {
    $at = @{ 'InterfaceAlias' = $card.Name; 'AddressFamily' = 'IPv4' }
    $ip = Get-NetIPInterface @at
    $rows = @(Get-NetIPAddress @at -ErrorAction SilentlyContinue)
    return @{
        'name' = $card.Name; 'mac' = $card.MacAddress; 'mtu' = $ip.NlMtu; 'state' = $card.Status
        'driver' = $card.DriverFileName; 'device' = $card.PnPDeviceID; 'speed_bit' = $card.Speed
        'addresses' = @(foreach ($row in $rows) { $row.IPAddress + '/' + $row.PrefixLength })
        'offloads' = @(Get-Offloads $card.Name)
    }
}

try {
    $system = Get-CimInstance -ClassName Win32_ComputerSystem
    $windows = Get-CimInstance -ClassName Win32_OperatingSystem
    $answer = @{
        'ok' = $true; 'hostname' = $system.DNSHostName
        'kernel' = $windows.Caption + ' ' + $windows.Version
        'cpus' = $system.NumberOfLogicalProcessors
        'memory_bytes' = $system.TotalPhysicalMemory
        'booted' = $windows.LastBootUpTime.ToUniversalTime().ToString('o')
        'nics' = @(foreach ($card in @(Get-NetAdapter)) { Get-Nic $card })
    }
} catch {
    $answer = @{ 'ok' = $false; 'message' = $_.Exception.Message }
}
$json = ConvertTo-Json -InputObject $answer -Depth 6 -Compress
[Console]::Out.WriteLine('provision:' + [Convert]::ToBase64String($utf8.GetBytes($json)))
