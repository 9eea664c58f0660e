# netserver on a Windows guest. JSON on standard input says what to do: "do" is
#   tell    which one is there, if any; the folder for another is made
#   accept  take the file that was brought beside it, if it has the SHA-256 given
#   serve   one for each of "endpoints", afresh, for "lifetime_s", and let its client through
#   stop    end them, and let nobody through
# The answer is a line "provision:" and JSON in base64. For Windows PowerShell 5.1 and PowerShell 7.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$utf8 = New-Object System.Text.UTF8Encoding($false)
$given = ConvertFrom-Json -InputObject ([Console]::In.ReadToEnd())
$exe = $given.folder + '\netserver.exe'
$part = $exe + '.part'
$ours = 'provision-netserver-'

function Get-Sum($path) {
    if (-not [IO.File]::Exists($path)) { return '' }
    return (Get-FileHash -LiteralPath $path -Algorithm SHA256).Hash.ToLowerInvariant()
}

function Stop-Serving {
    Remove-NetFirewallRule -Name ($ours + '*') -ErrorAction SilentlyContinue
    foreach ($task in @(Get-ScheduledTask -TaskName ($ours + '*') -ErrorAction SilentlyContinue)) {
        Stop-ScheduledTask -TaskName $task.TaskName
        Unregister-ScheduledTask -TaskName $task.TaskName -Confirm:$false
    }
    foreach ($one in @(Get-Process -Name 'netserver' -ErrorAction SilentlyContinue)) {
        if ($one.Path -eq $exe) { Stop-Process -Id $one.Id -Force }
    }
}

function Test-Listening($at) {
    $where = @{ 'LocalAddress' = $at.address; 'LocalPort' = $at.port; 'State' = 'Listen' }
    return @(Get-NetTCPConnection @where -ErrorAction SilentlyContinue).Count -gt 0
}

# A task, since what a session starts ends with it; its time limit is the lifetime. Tasks run below
# what is normal (priority 7) where nobody says otherwise.
function Start-One($at) {
    if (Test-Listening $at) { throw "port $($at.port) is in use by another program" }
    $name = $ours + $at.port
    $words = '-D -4 -L ' + $at.address + ' -p ' + $at.port
    $life = [TimeSpan]::FromSeconds($given.lifetime_s)
    $task = @{
        'Action' = New-ScheduledTaskAction -Execute $exe -Argument $words
        'Settings' = New-ScheduledTaskSettingsSet -ExecutionTimeLimit $life -Priority 5
        'Principal' = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount
    }
    Register-ScheduledTask -TaskName $name -Force @task > $null
    Start-ScheduledTask -TaskName $name
    $tries = 100
    while (-not (Test-Listening $at)) {
        if ($tries -eq 0) { throw "netserver does not listen at port $($at.port)" }
        $tries = $tries - 1
        Start-Sleep -Milliseconds 100
    }
    foreach ($protocol in 'TCP', 'UDP') {
        $rule = @{ 'Direction' = 'Inbound'; 'Action' = 'Allow'; 'Profile' = 'Any'; 'Program' = $exe }
        $link = @{ 'LocalAddress' = $at.address; 'RemoteAddress' = $at.client }
        $called = $name + '-' + $protocol
        New-NetFirewallRule -Name $called -DisplayName $called -Protocol $protocol @rule @link > $null
    }
}

try {
    if ($given.do -eq 'tell') { [void][IO.Directory]::CreateDirectory($given.folder) }
    if ($given.do -eq 'accept') {
        $sum = Get-Sum $part
        if ($sum -ne $given.sha256) { throw "its SHA-256 is $sum, not $($given.sha256)" }
        Stop-Serving
        Move-Item -LiteralPath $part -Destination $exe -Force
    }
    if ($given.do -eq 'stop') { Stop-Serving }
    if ($given.do -eq 'serve') {
        Stop-Serving
        foreach ($at in $given.endpoints) { Start-One $at }
    }
    $answer = @{ 'ok' = $true; 'sha256' = Get-Sum $exe; 'version' = '' }
    if ($answer.sha256) { $answer.version = (@(& $exe '-V') -join ' ').Trim() }
} catch {
    $answer = @{ 'ok' = $false; 'message' = $_.Exception.Message }
}
$json = ConvertTo-Json -InputObject $answer -Depth 3 -Compress
[Console]::Out.WriteLine('provision:' + [Convert]::ToBase64String($utf8.GetBytes($json)))
