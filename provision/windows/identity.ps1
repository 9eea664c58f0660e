#ps1_sysnative
# Makes a Windows guest who its seed disk says it is. cloudbase-init runs this, once for each
# instance-id; all that differs between guests is in provision.json, beside it on that disk.
# For Windows PowerShell 5.1 and PowerShell 7.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$utf8 = New-Object System.Text.UTF8Encoding($false)

# OpenSSH takes no key from a file that anybody but Administrators and SYSTEM may read or write.
function Write-Key($path, $text) {
    [IO.File]::WriteAllBytes($path, $utf8.GetBytes($text))
    $words = @($path, '/inheritance:r', '/grant', '*S-1-5-32-544:F', '/grant', '*S-1-5-18:F')
    & icacls.exe @words > $null
    if ($LASTEXITCODE -ne 0) { throw "ProvisionIcacls: exit $LASTEXITCODE" }
}

# By their MACs, whatever Windows calls them. Nothing but what was asked for speaks on a link.
function Set-Nic($nic) {
    $card = Get-NetAdapter | Where-Object { $_.MacAddress -eq $nic.mac }
    if ($null -eq $card) { throw 'ProvisionNoAdapter' }
    if ($card.Name -ne $nic.name) { Rename-NetAdapter -Name $card.Name -NewName $nic.name }
    if ($nic.mtu -gt 1500) {
        $frame = [string]($nic.mtu + 14)
        Set-NetAdapterAdvancedProperty -Name $nic.name -RegistryKeyword '*JumboPacket' -RegistryValue $frame
    }
    Disable-NetAdapterBinding -Name $nic.name -ComponentID 'ms_tcpip6'
    $at = @{ 'InterfaceAlias' = $nic.name; 'AddressFamily' = 'IPv4' }
    Set-NetIPInterface @at -Dhcp Disabled -NlMtuBytes $nic.mtu
    Remove-NetIPAddress @at -Confirm:$false -ErrorAction SilentlyContinue
    New-NetIPAddress @at -IPAddress $nic.address -PrefixLength $nic.prefix > $null
}

function Open-Port($name, $addresses, $more) {
    Remove-NetFirewallRule -Name $name -ErrorAction SilentlyContinue
    $rule = @{ 'Direction' = 'Inbound'; 'Action' = 'Allow'; 'Profile' = 'Any' }
    New-NetFirewallRule -Name $name -DisplayName $name -LocalAddress $addresses @rule @more > $null
}

$volume = @(Get-Volume -FileSystemLabel 'cidata')[0]
$seed = [string]$volume.DriveLetter + ':\provision.json'
$given = ConvertFrom-Json -InputObject ($utf8.GetString([IO.File]::ReadAllBytes($seed)))
foreach ($nic in $given.nics) { Set-Nic $nic }
$addresses = @(foreach ($nic in $given.nics) { $nic.address })
Open-Port 'provision-ssh' @($addresses[0]) @{ 'Protocol' = 'TCP'; 'LocalPort' = '22' }
Open-Port 'provision-ping' $addresses @{ 'Protocol' = 'ICMPv4'; 'IcmpType' = '8' }
$ssh = $env:ProgramData + '\ssh'
[void][IO.Directory]::CreateDirectory($ssh)
Write-Key ($ssh + '\ssh_host_ed25519_key') $given.host_key
Write-Key ($ssh + '\administrators_authorized_keys') $given.authorized_key
Set-Service -Name 'sshd' -StartupType Automatic
Restart-Service -Name 'sshd' -Force
